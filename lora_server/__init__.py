"""LoRA weights over HTTP: what travels where, module by module.

An upload travels

    web.middlewares   who calls (`tokens`), and may this come in (`web.admission`)?
    web.uploads       the multipart body becomes a file name, bounded blocks and fields
    ingest            the upload as a sentence
    staging, store    the bytes go to disk, hashed on the way, under no name yet
    door              may this file come in? asks a confined child (`judge`), which reads it
                      (`formats`) and says what it is (`inspection`)
    library           a free name is claimed: intent, rename, row
    catalog           what is known of the file
    web.answers       the answer

and everything else is one of these steps taken alone: `web.loras` and `web.bin` translate
requests into calls of `library` and `catalog`, `preflight` asks the door before anything is
sent, `reconcile` enters what people do to the tree by hand, `fingerprints` hashes the weights
in the background, and `reinspect` judges again by newer rules. `layout` draws the disk,
`names` the stored names, `records` the nouns, `errors` what can go wrong; `config` is the only
reader of settings.

An evaluation travels

    web.evaluations            what is asked for becomes a plan (`evaluation.plans`), or is refused
    evaluation.evaluator       it waits for its turn, is carried out, cancelled or taken up again
    evaluation.weights_tier    step by step: open, measure, look around, report, keep
    evaluation.worker          a process of its own runs each task in a child that gets descriptors
    evaluation.weights         the arithmetic: spectra, checks, sketches, comparisons
    evaluation.verdict, .page  what it comes to, in a word and as a page
    evaluation.reports         the report on disk

and `evaluation.after_upload` asks for it after every upload.

`client` is the other end of the wire, and `cli` the command that serves, looks after, and asks.

Only `web` imports aiohttp's server side. Imports point downward; a test checks both.
"""
