"""Tests for store/secrets.py: no secret is stored, and no hyperparameter is taken for one."""

import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_meta.store.secrets import REDACTED, is_secret_name, redacted

# In two parts, so that no scanner of repositories takes these for somebody's.
AWS_ID = "AKIA" + "IOSFODNN7EXAMPLE"
AWS_SECRET = "wJalrXUtnFEMI/K7MDENG/" + "bPxRfiCYEXAMPLEKEY"
GITHUB = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
RANDOM = "f3Q9zT" + "x81LmW0aPv7Rk2"
JWT = "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl"
SHA1 = "da39a3ee5e6b4b0d3255bfef95601890afd80709"
UUID = "550e8400-e29b-41d4-a716-446655440000"

SECRET = """
    password PASSWORD db.password dbPassword passwd smtp_pass pwd PGPASSWORD passphrase secret
    client_secret clientSecret secret_2 credentials gcp-credential credentials_json apikey api_key
    apiKey API_KEY OPENAI_API_KEY api-key APIKey wandb/api_key access_key aws_access_key_id
    awsSecretAccessKey private_key ssh_key secret_key secretKey auth_token authToken
    access_token access_tokens session_token bearer bearer_token Authorization password_hash
"""
HARMLESS = """
    max_tokens n_tokens num_tokens tokens tokenizer tokenizer_path pad_token eos_token token_dropout
    token key auth hf_token github_token key_size num_keys keys keep_prob passes n_passes pass
    two_pass author authors secret_layer secretary_problem password_length hidden_key_dim key_dim
    api_key_env private_key_path bearing_load lr compass access key_access accessor private session
    monkey turkey hockey keyword λ 学习率
"""
SECRET_NAMES = SECRET.split()
HARMLESS_NAMES = [*HARMLESS.split(), "", "  ", "1", "_"]

HARMLESS_VALUES = [
    *("", "0", "0.1", "1e-4", "0.12345678901234567", "-1.7976931348623157e+308", "123456789012345"),
    *("True", "None", "nan", "adam", "a b c", "2026-01-01T12:00:00.123456+00:00", "1.2.3", "٣"),
    *(SHA1, SHA1.upper(), UUID, "d41d8cd98f00b204e9800998ecf8427e", "sha256:" + "9f86d081" * 8),
    *("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", "nS7WW3l5yoGf1D2mQk0eT4uVbXcZaR6hLpJiOwEs"),
    *("s3://bucket/key/part-00000.parquet", "/home/ann/token/key.pem", r"C:\Users\ann\data.csv"),
    *("gs://bucket:8080/x@v2", "https://host:8080/path@v1", "docker://pytorch:2.0@sha256:" + SHA1),
    *("git@github.com:owner/name.git", "postgresql://db:5432/mlflow", "http://u@host/x"),
    *("sk-learn-random-forest-classifier-v2-tuned", "sk-learn", "sk-proj-notes", "skip-connection"),
    *("hf_bert-base", "hf_bert_base_uncased_finetuned_on_squad_v2", "ghp_model", "AKIA", "xoxo"),
    *(
        "skip-connection-resnet",
        "resnet50d.ra4_e3600_r224_in1k",
        "meta-llama/Llama-3.1-8B-Instruct",
    ),
    *(
        "eyJ",
        "eyJhbGciOiJIUzI1NiJ9",
        "AIzawa-model",
        "risk-" + "a" * 40,
        "-----BEGIN CERTIFICATE-----",
    ),
    "RandomForestClassifier(max_depth=7, n_estimators=500, n_jobs=-1, random_state=42)",
    "ColumnTransformer(transformers=[('num', StandardScaler(), ['age', 'key_size', 'author'])])",
    "['user_id', 'session_key', 'n_tokens', 'password_length', 'secret']",
    "<torch.optim.adam.Adam object at 0x7f3c2a1b9d50>",
    "Namespace(lr=0.1, max_tokens=512, eos_token='</s>', use_auth_token=False, api_key=None)",
    "{'pad_token': '[PAD]', 'token': None, 'key': 'user_id', 'password': '', 'seed': 12345678901}",
    '{"api_key": "${OPENAI_API_KEY}", "password": "****", "secret": null, "auth": "oauth2"}',
    "python train.py --lr 0.1 --tokens 4096 --key=value --tokenizer bert-base-uncased-finetuned",
    "python train.py --password $PASSWORD --api-key {{ key }}",
    "bearer capacity of the soil, in standard_units_of_pressure",
    "the secret of long training; the key idea: attention",
]
SECRET_VALUES = [
    *(AWS_ID, "ASIA" + AWS_ID[4:], GITHUB, "gho_" + "a" * 36, "ghs_" + "b" * 36),
    *("github_pat_" + "a1" * 11, "glpat-" + "a1B2c3D4e5F6g7H8i9J0", "hf_" + "b" * 34),
    *("sk-" + "c" * 48, "sk-ant-" + "api03-" + "x_Y-1" * 10, "sk-proj-" + "Ab1" * 20),
    *("xoxb-" + "123456789012-abcdef", "AIza" + "SyA-1234567890abcdefghijklmnopqrstu"),
    *("ya29." + "a0AfH6SMBx-1234567890", JWT, "dapi" + "0123456789abcdef" * 2),
    "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----",
    f"python train.py --token {GITHUB} --lr 0.1",
    "python train.py --password hunter2",
    "python train.py --db-password=hunter2 --lr 0.1",
    "docker run --env DB_PASSWORD=hunter2 image",
    "env PGPASSWORD=hunter2 psql",
    f"curl -H 'Authorization: Bearer {RANDOM}' http://host",
    "Authorization: Basic YWxh",
    f"Bearer {RANDOM}",
    f"token={RANDOM}",
    "Namespace(lr=0.1, password='hunter2', seed=1)",
    "{'user': 'ann', 'password': 'hunter2'}",
    '{"lr": 0.1, "api_key": "abc"}',
    '"{\\"lr\\": 0.1, \\"api_key\\": \\"abc\\"}"',
    "x=y; pwd=hunter2",
    f"DefaultEndpointsProtocol=https;AccountKey={AWS_SECRET}==",
    f"https://account.blob.core.windows.net/c/b?sv=2024&sig={RANDOM}%3D",
]


def one(key: str, value: str | None) -> tuple[str | None, int]:
    after, n = redacted(key, pa.array([value], pa.string()))
    return after.to_pylist()[0], n


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_a_name_that_says_secret_is_a_secrets(name: str) -> None:
    assert is_secret_name(name)
    assert one(name, "hunter2") == (REDACTED, 1)


@pytest.mark.parametrize("name", HARMLESS_NAMES)
def test_a_name_of_something_else_is_not_a_secrets(name: str) -> None:
    assert not is_secret_name(name)
    assert one(name, "hunter2") == ("hunter2", 0)


@pytest.mark.parametrize("value", HARMLESS_VALUES)
@pytest.mark.parametrize("name", ["model", "max_tokens"])
def test_a_hyperparameter_stays_as_it_is(name: str, value: str) -> None:
    assert one(name, value) == (value, 0)


@pytest.mark.parametrize("value", SECRET_VALUES)
@pytest.mark.parametrize("before", ["", "first line\nthen: "])
def test_a_secret_is_found_by_its_look_under_any_name(before: str, value: str) -> None:
    assert one("note", before + value) == (REDACTED, 1)


@pytest.mark.parametrize(
    "value", ["", "0", "-3", "0.25", "1e-3", "123456789012", "TRUE", "None", None]
)
def test_a_number_or_a_switch_is_no_secret_under_any_name(value: str | None) -> None:
    assert one("password", value) == (value, 0)


@pytest.mark.parametrize("value", ["1234567890123", "true love", "hunter2", "0x10", "\n", "None "])
def test_whatever_else_is_one_under_a_secrets_name(value: str) -> None:
    assert one("password", value) == (REDACTED, 1)


@pytest.mark.parametrize("name", ["token", "hf_token", "githubToken", "auth", "key", "wandb.key"])
def test_a_weak_name_hides_what_looks_random(name: str) -> None:
    assert one(name, RANDOM) == (REDACTED, 1)
    assert one(name, SHA1) == (REDACTED, 1)


@pytest.mark.parametrize(
    "value",
    [
        *("0.12345678901234567", "12345678901234567890", "-1.7976931348623157e+308", "short1"),
        *(
            "[PAD]",
            "</s>",
            "<|reserved_special_token_250|>",
            "customer_id_2",
            "RandomForestClassifier2",
        ),
        *(
            "/home/ann/x1y2z3a4b5c6/d",
            "s3://bucket/part-00000-3f2a9c1b7d4e5f60.snappy",
            "data/a1b2c3d4e5f6.csv",
        ),
        *(
            "bert-base-uncased-v2",
            "resnet50d.ra4_e3600_r224",
            "two words and 1 number",
            "2026-01-01",
        ),
    ],
)
def test_a_weak_name_keeps_numbers_paths_words_and_identifiers(value: str) -> None:
    assert one("pad_token", value) == (value, 0)


def test_an_aws_secret_is_one_only_where_the_name_says_so() -> None:
    assert one("aws.value", AWS_SECRET) == (REDACTED, 1)
    assert one("aws.commit", SHA1) == (SHA1, 0)
    assert one("digest", AWS_SECRET) == (AWS_SECRET, 0)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("postgresql://user:hunter2@db:5432/x", "postgresql://[redacted]@db:5432/x"),
        (f"https://user:{GITHUB}@github.com/x/y", "https://[redacted]@github.com/x/y"),
        ("mysql+pymysql://:p@ss@db/x", "mysql+pymysql://[redacted]@db/x"),
        (
            "from http://a:b@c/d to redis://e:f@g",
            "from http://[redacted]@c/d to redis://[redacted]@g",
        ),
    ],
)
def test_of_an_url_only_the_login_is_hidden(before: str, after: str) -> None:
    assert one("repository", before) == (after, 1)
    assert one("repository", after) == (after, 0)


texts = st.lists(st.none() | st.text() | st.sampled_from(SECRET_VALUES + HARMLESS_VALUES))
keys = st.text() | st.sampled_from(SECRET_NAMES + HARMLESS_NAMES)


@given(keys, texts, st.integers(0, 5))
def test_any_text_goes_and_only_secrets_change(
    key: str, values: list[str | None], cut: int
) -> None:
    whole = pa.array(values, pa.string())
    after, n = redacted(key, whole)
    assert len(after) == len(values)
    assert after.type == pa.string()
    assert n == sum(x != y for x, y in zip(after.to_pylist(), values, strict=True))
    assert [value is None for value in after.to_pylist()] == [value is None for value in values]
    chunked = pa.chunked_array([whole[:cut], whole[cut:]])
    assert redacted(key, chunked) == (pa.chunked_array([after[:cut], after[cut:]]), n)
    assert redacted(key, after) == (after, 0)


def seconds(work: Callable[[], object]) -> float:
    """The best of 3, since a busy machine makes everything slower and nothing faster."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def test_looking_for_secrets_costs_no_more_than_a_few_searches_for_a_word() -> None:
    rng = np.random.default_rng(0)
    numbers = [repr(x) for x in rng.uniform(size=100_000)]
    paths = [f"s3://bucket/team/data/part-{i:05d}.parquet" for i in range(100_000)]
    values = pa.array(numbers + paths)
    word = seconds(lambda: pc.match_substring_regex(values, "(?i)password|secret"))
    assert seconds(lambda: redacted("data", values)) < 4 * word


@pytest.mark.parametrize(
    "unit", ["a", "/", "eyJ-", "a=", "--a ", "a.", "a://", "http://a:", "1a", "token="]
)
def test_no_text_is_long_enough_to_be_slow(unit: str) -> None:
    text = unit * (100_000 // len(unit))
    small = seconds(lambda: one("key", f"{text[:25_000]} password: x"))
    assert seconds(lambda: one("key", f"{text} password: x")) < 10 * small + 0.1
