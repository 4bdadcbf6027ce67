#!/usr/bin/env python3
"""Makes what a guest of the qemu campaign boots: a Debian kernel, and an initramfs with a program.

  guest_image.py KERNELS INITRAMFS PROGRAM

KERNELS is a directory that keeps the kernel (`vmlinuz`) and the modules that the guest loads
(`modules/`, numbered in the order of loading); what is not there yet is fetched with apt-get, as a
package that is unpacked and not installed. INITRAMFS is written anew: PROGRAM as /init, its shared
libraries, the modules. On failure the last line says why, and the exit code is 1.
"""
import fcntl
import lzma
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import tempfile

PACKAGES = ["linux-image-cloud-amd64", "linux-image-amd64"]
# With what they need. What a kernel has built in is not among its modules, and is passed over.
MODULES = ["virtio_pci", "virtio_blk", "crc32c_generic", "crc32c_intel", "ext4", "xfs"]


class Unavailable(Exception):
    pass


def run(command, **options):
    try:
        return subprocess.run(command, check=True, capture_output=True, **options).stdout
    except FileNotFoundError:
        raise Unavailable(f"no {command[0]}")
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines()
        raise Unavailable(f"{' '.join(map(str, command[:2]))} failed: {said[-1] if said else ''}")


def unpack(place):
    """Fetches a kernel and unpacks it below `place`."""
    if run(["dpkg", "--print-architecture"]).strip() != b"amd64":
        raise Unavailable("the guest is an amd64 Debian, this machine is not")
    for package in PACKAGES:
        said = run(["apt-cache", "depends", package]).decode()
        if versioned := re.search(r"Depends: (linux-image-\d\S+)", said):
            run(["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", versioned[1]],
                cwd=place)
            run(["dpkg-deb", "-x", next(place.glob("*.deb")), place])
            return
    raise Unavailable(f"no package {' or '.join(PACKAGES)} in apt's lists")


def content(module):
    data = module.read_bytes()
    return lzma.decompress(data) if module.suffix == ".xz" else data


def with_needed(name, modules, order):
    """Appends the module to `order`, after what it needs."""
    if name in order or name not in modules:
        return
    needed = re.search(rb"\0depends=([^\0]*)\0", content(modules[name]))
    for other in needed[1].decode().split(",") if needed else []:
        with_needed(other.replace("-", "_"), modules, order)
    order.append(name)


def fetch(kernels):
    with tempfile.TemporaryDirectory(dir=kernels) as made:
        place = pathlib.Path(made)
        unpack(place)
        modules = {module.name.split(".ko")[0].replace("-", "_"): module
                   for module in place.glob("**/lib/modules/**/*.ko*")}
        order = []
        for name in MODULES:
            with_needed(name, modules, order)
        chosen = place / "modules"
        chosen.mkdir()
        for number, name in enumerate(order):
            (chosen / f"{number:02}-{name}.ko").write_bytes(content(modules[name]))
        shutil.rmtree(kernels / "modules", ignore_errors=True)
        chosen.rename(kernels / "modules")
        next(place.glob("boot/vmlinuz-*")).rename(kernels / "vmlinuz")  # last: then all is there


def shared_libraries(program):
    """Where it has them, and the dynamic linker."""
    said = run(["ldd", program]).decode()
    return [pathlib.Path(path) for path in re.findall(r"(/\S+) \(0x", said)]


class Archive:
    """A cpio archive as the kernel reads it ("newc")."""

    def __init__(self, out):
        self.out = out
        self.made = set()

    def entry(self, name, mode, data=b"", device=(0, 0)):
        fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0]
        header = b"070701" + b"".join(b"%08x" % field for field in fields)
        for part in (header + name.encode() + b"\0", data):
            self.out.write(part + b"\0" * (-len(part) % 4))

    def directory(self, path):
        for parent in [*reversed(pathlib.PurePath(path).parents), pathlib.PurePath(path)]:
            if str(parent) != "." and parent not in self.made:
                self.made.add(parent)
                self.entry(str(parent), stat.S_IFDIR | 0o755)

    def file(self, name, data):
        self.directory(pathlib.PurePath(name).parent)
        self.entry(name, stat.S_IFREG | 0o755, data)


def pack(kernels, initramfs, program):
    with open(initramfs, "wb") as out, tempfile.TemporaryDirectory() as made:
        archive = Archive(out)
        for name in ("dev", "proc", "sys", "tmp", "disk"):
            archive.directory(name)
        # The kernel opens it for /init.
        archive.entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
        stripped = pathlib.Path(made) / "init"
        run(["strip", "-o", stripped, program])
        archive.file("init", stripped.read_bytes())
        for library in shared_libraries(program):
            archive.file(str(library).lstrip("/"), library.read_bytes())
        for module in sorted((kernels / "modules").iterdir()):
            archive.file(f"modules/{module.name}", module.read_bytes())
        archive.entry("TRAILER!!!", 0)


def main():
    kernels, initramfs, program = map(pathlib.Path, sys.argv[1:])
    kernels.mkdir(parents=True, exist_ok=True)
    try:
        # Others may do the same at the same time.
        with open(kernels / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (kernels / "vmlinuz").exists():
                fetch(kernels)
        pack(kernels, initramfs, program)
    except (Unavailable, OSError, StopIteration) as error:
        print(error or "the package holds no kernel")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
