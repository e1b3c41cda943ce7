"""HTTP: the only package that imports aiohttp's server side."""
