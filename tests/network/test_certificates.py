"""What verifies certificates: the system's, or those that the environment names."""

from pathlib import Path

import pytest

from watchdog.errors import ConfigError
from watchdog.network.certificates import tls_context


@pytest.mark.parametrize("content", [None, ""], ids=["missing", "empty"])
def test_certificates_that_cannot_be_loaded_are_a_matter_of_configuration(
    tmp_path: Path, content: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with pytest.raises(
        ConfigError, match=r"what SSL_CERT_FILE names cannot be loaded.*; correct SSL_CERT_FILE"
    ) as caught:
        tls_context("ZEGO's")
    assert "_ssl.c" not in str(caught.value)


def test_a_directory_without_certificates_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSL says nothing about it, and then verifies nothing."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    with pytest.raises(ConfigError, match=r"SSL_CERT_DIR names cannot be loaded.*there are none"):
        tls_context("ZEGO's")
    (tmp_path / "0a1b2c3d.0").touch()
    tls_context("ZEGO's")
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="there are none"):
        tls_context("ZEGO's")
