"""The HTTP client behind the command line; nothing in it knows a terminal.

    address       where the API is
    patience      how long to go on trying, and how long to wait in between
    connection    requests and their errors (`errors`, `refusals`), repeated where that is safe
    answers       what the server says, as records
    library       one function for each thing that one can ask
    local_files   a file on this side: its digest, its header and its bytes, each read once
    evaluations   asked for, followed, read
    uploads       a file goes up: asked first, hashed, looked for, sent
    downloads     a file comes down: resumed, checked, never over another one

A newer server may say more than these records hold; an answer that lacks what they need is an
error. The one import from the rest of the package is the list of file extensions.
"""
