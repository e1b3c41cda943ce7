"""Packaging of lora_server: lower bounds here, exact versions in requirements/."""

from setuptools import find_packages, setup

setup(
    name="lora-server",
    version="0.1.0",
    description="HTTP daemon that owns a tree of LoRA weights on a GPU host",
    license="Apache-2.0",
    packages=find_packages(include=["lora_server", "lora_server.*"]),
    package_data={"lora_server": ["py.typed", "web/static/*"]},
    python_requires=">=3.11",
    install_requires=[
        "aiofiles>=24.1",
        "aiohttp>=3.14.5",
        "aiosqlite>=0.21",
        "cryptography>=44",
        "limits>=5.5",
        "multidict>=6.1",
        "multipart>=2.0.1",
        "numpy>=1.26",
        "offapi>=0.1.4",
        "pathvalidate>=3.3",
        "prometheus-client>=0.26",
        "pydantic>=2.11",
        "pydantic-settings>=2.10",
        "PyJWT[crypto]>=2.15.1",
        "rich>=14",
        "safetensors>=0.8",
        "SQLAlchemy[asyncio]>=2.0.41",
        "structlog>=25.4",
        "typer>=0.16",
        "watchfiles>=1.1",
    ],
    extras_require={
        "test": [
            "blockbuster>=1.5.26",
            "httpx>=0.28",
            "hypothesis>=6.140",
            "mypy>=2.4",
            "openapi-spec-validator>=0.9",
            "pytest>=9",
            "pytest-aiohttp>=1.1",
            "pytest-timeout>=2.4",
            "pytest-xdist>=3.8",  # two cores, two workers
            "requests>=2.32",
            "ruff>=0.17",
            "schemathesis>=4.32",
            "types-aiofiles",
            "types-requests",
        ],
    },
    entry_points={"console_scripts": ["lora-server=lora_server.cli:app"]},
)
