import subprocess
import sys

import pytest

import mlflow_meta

HEAVY = "{'numpy', 'pandas', 'sklearn', 'lightgbm', 'mlflow', 'matplotlib', 'click', 'rich'}"


def test_every_public_name_resolves() -> None:
    assert sorted(mlflow_meta.__all__) == mlflow_meta.__all__ == sorted(mlflow_meta._HOME)
    for name in mlflow_meta.__all__:
        assert getattr(mlflow_meta, name).__module__.startswith("mlflow_meta")


def test_a_name_that_is_not_public_is_an_attribute_error_that_says_so() -> None:
    with pytest.raises(AttributeError, match=r"module 'mlflow_meta' has no attribute 'nonsense'"):
        _ = mlflow_meta.nonsense


def test_dir_lists_what_is_public() -> None:
    assert set(mlflow_meta.__all__) <= set(dir(mlflow_meta))


@pytest.mark.parametrize("module", ["mlflow_meta", "mlflow_meta.errors", "mlflow_meta.trials"])
def test_importing_the_package_imports_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print({HEAVY} & sys.modules.keys())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


def test_the_heart_imports_no_mlflow() -> None:
    code = (
        "import sys; from mlflow_meta import propose, SearchSpace, MetaDataset;"
        "print({'mlflow', 'click', 'matplotlib'} & sys.modules.keys())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
