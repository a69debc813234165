"""Archives that unpack to far more than they are end in one line, while they are read."""

import gzip
import io
import sys
import tarfile

import pytest
from conftest import recipe_script

from tasnet_attn.archives import tar_files, unpacked, unpacked_by
from tasnet_attn.errors import UserError


def tar(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:", format=tarfile.GNU_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_a_small_archive_that_unpacks_to_much_is_refused_before_it_does(tmp_path):
    file = tmp_path / "bomb.gz"
    file.write_bytes(gzip.compress(bytes(4_000_000)))
    with gzip.open(file) as stream:
        with pytest.raises(UserError, match=r"bomb\.gz: unpacks to more than 100 times its size"):
            unpacked(stream, file)
        assert stream.tell() < 2_000_000
    endless = [sys.executable, "-c", "import sys\nwhile True: sys.stdout.buffer.write(bytes(100_000))"]
    with pytest.raises(UserError, match="unpacks to more"):
        unpacked_by(endless, file)


def test_what_unpacks_as_it_should_is_whole(tmp_path):
    file = tmp_path / "a.tar.gz"
    file.write_bytes(gzip.compress(tar({"./b": b"2" * 5000, "a/c": b"1"})))
    with gzip.open(file) as stream:
        content = unpacked(stream, file)
    assert dict(tar_files(content, file)) == {"a/c": b"1", "b": b"2" * 5000}
    assert unpacked_by([sys.executable, "-c", "print('x')"], file).strip() == b"x"
    for command, said in (
        ([sys.executable, "-c", "raise SystemExit('broken off')"], "broken off"), (["no_such_tool"], "no_such_tool"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=said):
            unpacked_by(command, file)


def test_a_program_that_says_much_goes_on(tmp_path):
    """More than a pipe holds."""
    file = tmp_path / "a"
    file.write_bytes(b"a")
    much = "import sys; sys.stderr.write('x' * 200_000 + '\\nbroken off\\n'); print('y'); sys.exit(int(sys.argv[1]))"
    assert unpacked_by([sys.executable, "-c", much, "0"], file).strip() == b"y"
    with pytest.raises(UserError, match="a: cannot be unpacked: x+ broken off; fetch it again") as caught:
        unpacked_by([sys.executable, "-c", much, "1"], file)
    assert len(str(caught.value)) < 600


def test_a_damaged_gzip_in_a_debian_package_is_one_line(tmp_path):
    """Its bytes, not its end or its header: zlib's own exception."""
    packed = bytearray(gzip.compress(tar({"./control": b"Package: p\nVersion: 1\n"})))
    packed[12:40] = bytes(range(28))
    parts = {"control.tar.gz": packed, "data.tar.gz": packed}
    content = b"!<arch>\n"
    for name, part in parts.items():
        content += (
            f"{name:16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(part):<10}`\n".encode() + part + b"\n" * (len(part) % 2)
        )
    (tmp_path / "p.deb").write_bytes(content)
    with pytest.raises(UserError, match=r"p\.deb: cannot be unpacked: Error -3"):
        recipe_script("debian2mix/local/deb.py").Deb(tmp_path / "p.deb")


def test_a_member_that_says_it_is_a_terabyte(tmp_path):
    """A sparse file's size is stated apart from what is stored of it."""
    content = bytearray(tar({"a": b"x" * 512}))
    content[156:157] = tarfile.GNUTYPE_SPARSE
    content[386:410] = b"%011o\0%011o\0" % (0, 512)  # what is stored of it: offset, length
    content[483:495] = b"%011o\0" % (2**33 - 1)
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    with pytest.raises(UserError, match="contains files larger than itself"):
        list(tar_files(bytes(content), tmp_path / "sparse.tar"))
    with pytest.raises(UserError, match="cannot be unpacked"):
        list(tar_files(b"no archive" * 100, tmp_path / "a.tar"))
