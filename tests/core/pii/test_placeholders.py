"""Names tell nothing, repeat for the same value, and are never shared by two."""

import hmac

from hypothesis import given
from hypothesis import strategies as st

from nexus_gateway.core.pii.placeholders import Placeholders, keyed_digest


@given(salt=st.binary(max_size=150), message=st.binary(max_size=300))
def test_the_digest_is_hmac_sha_256(salt: bytes, message: bytes) -> None:
    assert keyed_digest(salt)(message) == hmac.digest(salt, message, "sha256")


@given(
    values=st.lists(st.tuples(st.sampled_from(["EMAIL", "CARD"]), st.binary(max_size=4)), max_size=40),
    chars=st.integers(1, 3),
)
def test_two_values_never_share_a_name_even_when_names_are_short(values: list[tuple[str, bytes]], chars: int) -> None:
    names = Placeholders(keyed_digest(b"salt"), "k", id_chars=chars)
    given_: dict[tuple[str, bytes], bytes] = {}
    for type_, normal in values:
        name = names.name(type_, normal, repr((type_, normal)))
        assert given_.setdefault((type_, normal), name) == name
    assert len(set(given_.values())) == len(given_) == len(names.table)
    assert all(names.table[name.decode()] == repr(value) for value, name in given_.items())
    assert sum(names.counts.values()) == len(values)


def test_a_name_is_the_type_and_sixteen_characters_that_nobody_confuses() -> None:
    name = Placeholders(keyed_digest(b"salt"), "k").name("EMAIL", b"kim@example.com", "x").decode()
    assert name.startswith("[EMAIL_")
    assert name.endswith("]")
    assert len(name) == len("[EMAIL_K7Q2M4T9X3B6H5ZC]")
    assert set(name[7:-1]) <= set("0123456789ABCDEFGHJKMNPQRSTVWXYZ")


def test_what_belongs_to_whom_cannot_be_shifted() -> None:
    """A principal that ends like a type begins is another principal."""
    digest = keyed_digest(b"salt")
    names = {Placeholders(digest, who).name(type_, b"v", "") for who, type_ in (("a", "AB"), ("aA", "B"), ("", "AAB"))}
    assert len({name.split(b"_")[1] for name in names}) == 3
