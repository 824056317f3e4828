"""Which packages are installed; everything else is said in pyproject.toml.

`configs/` becomes a part of `deit_jax`: `pyproject.toml` cannot add one to those it finds.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["deit_jax", "deit_jax.*"]), "deit_jax.configs"],
    package_dir={"deit_jax.configs": "configs"},
)
