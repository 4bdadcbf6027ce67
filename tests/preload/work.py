"""Buffers of many sizes, from several threads; processes by exec; prints sums that must not change."""
import hashlib
import json
import subprocess
import sys
import threading
import zlib

sums = {}


def churn(seed):
    state, kept, digest = seed, [], hashlib.sha256()
    for _ in range(3000):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        size = (state >> 33) % 300_000 if state % 5 == 0 else (state >> 33) % 3_000
        kept.append(bytearray([state % 256]) * size)
        if len(kept) > 60:
            digest.update(kept.pop((state >> 20) % len(kept)))
        if kept and state % 7 == 0:
            kept[0].extend(b"x" * (state % 90_000))
    sums[seed] = digest.hexdigest()


threads = [threading.Thread(target=churn, args=(seed,)) for seed in range(1, 5)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(sums, sort_keys=True))

text = json.dumps([{"id": i, "square": i * i} for i in range(50_000)])
packed = zlib.compress(text.encode())
assert zlib.decompress(packed).decode() == text
print(len(text), zlib.crc32(text.encode()), sum(x["square"] for x in json.loads(text)))

child = "print(len(bytearray(10**6)), sum(bytes([1]) * 100_000))"
print(subprocess.run([sys.executable, "-I", "-c", child], capture_output=True, check=True, text=True).stdout)
