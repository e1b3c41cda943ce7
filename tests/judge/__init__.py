"""Claims about the children that read hostile files."""
