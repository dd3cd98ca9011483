"""An authority of our own, and server certificates of every kind of wrong."""

import datetime as dt
import ssl
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = dt.timedelta(days=1)
KINDS = ("good", "wrong_host", "expired", "not_yet", "self_signed", "stranger")


def contexts(place: Path, name: str) -> dict[str, ssl.SSLContext]:
    """A server's side of TLS for each kind; the authority to believe is written to `ca.pem` in `place`."""
    now = dt.datetime.now(dt.UTC)
    ca_key, ca = _signed("our authority", None, None, now - DAY, now + 2 * DAY)
    (place / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    other_key, other = _signed("a stranger's authority", None, None, now - DAY, now + 2 * DAY)
    made = {
        "good": _signed(name, ca_key, ca, now - DAY, now + DAY),
        "wrong_host": _signed("another.test", ca_key, ca, now - DAY, now + DAY),
        "expired": _signed(name, ca_key, ca, now - 9 * DAY, now - DAY),
        "not_yet": _signed(name, ca_key, ca, now + DAY, now + 9 * DAY),
        "self_signed": _signed(name, None, None, now - DAY, now + DAY),
        "stranger": _signed(name, other_key, other, now - DAY, now + DAY),
    }
    return {kind: _context(place / f"{kind}.pem", *pair) for kind, pair in made.items()}


def _signed(
    name: str,
    issuer_key: ec.EllipticCurvePrivateKey | None,
    issuer: x509.Certificate | None,
    begins: dt.datetime,
    ends: dt.datetime,
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """A key and its certificate; without an issuer it vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    wanted = [x509.DNSName(name)] if "." in name else [x509.IPAddress(ip_address("127.0.0.1"))]
    own = issuer_key or key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName(wanted), critical=False)
        .add_extension(x509.BasicConstraints(ca=" " in name, path_length=None), critical=True)
    )
    return key, builder.sign(own, hashes.SHA256())


def _context(pem: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> ssl.SSLContext:
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context
