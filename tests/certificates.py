"""Certificates of an authority that tests make."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

from web.http.tls import CertificateFiles


class Authority:
    """A certificate authority. `file` has its certificate, for the clients that trust it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.file = folder / "ca.pem"
        self._authority = trustme.CA()
        self._authority.cert_pem.write_to_path(str(self.file))

    def issue(self, *names: str, days: float = 30, into: CertificateFiles | None = None) -> CertificateFiles:
        """Write a certificate for names or addresses that expires in some days, or has expired if they are negative."""
        end = datetime.now(UTC) + timedelta(days=days)
        issued = self._authority.issue_cert(*names, not_before=end - timedelta(days=60), not_after=end)
        files = into or CertificateFiles(*(self.folder / f"{names[0]}{days:+g}.{part}" for part in ("pem", "key")))
        files.cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        files.key.touch(mode=0o600)
        files.key.write_bytes(issued.private_key_pem.bytes())
        return files
