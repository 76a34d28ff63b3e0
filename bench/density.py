#!/usr/bin/env python3
"""How many bytes of mail a byte of disk holds: as delivered, trained on its own mail, and after garbage collection.

Every other message of CORPUS is delivered and the store trains dictionaries on it; then the others come, which no
dictionary has seen (the held-out half), and the first half is expunged. Each figure is raw bytes divided by the log
and index bytes in use of the half that it is about. Nothing is deduplicated.

  bench/density.py --corpus DIR
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "peers"))
import background  # noqa: E402
import compare  # noqa: E402

HALF = compare.USERS // 2
SETTINGS = {"scrub_days": 0, "gc_min_dead": 100}


def halves(corpus, work):
    """Two folders of links: every other message of every folder of the corpus."""
    folders = [work / "first", work / "second"]
    for folder in folders:
        folder.mkdir()
    n = 0
    for n, path in enumerate(sorted(pathlib.Path(corpus).resolve().rglob("*.eml"))):
        os.symlink(path, folders[n % 2] / f"{n:06d}.eml")
    if n < 2000:
        compare.fail(f"{corpus} holds too few messages")
    return folders


class Store(background.Server):
    def total(self):
        return json.loads(self.tambo("stat", "--json", stdout=subprocess.PIPE, text=True).stdout)["total"]

    def deliver(self, folder, first):
        """All messages of a folder once, to HALF users from number first on."""
        users = self.dir / "users"
        users.write_text("".join(f"u{n:04d}@{compare.DOMAIN}:{compare.PASSWORD}\n" for n in range(first, first + HALF)))
        count = sum(1 for _ in folder.iterdir())
        subprocess.run([str(self.bin / "tambo-bench"), "deliver", "--port", self.lmtp, "--users", str(users),
                        "--corpus", str(folder), "--count", str(count), "--seconds", "3600", "--connections", "16"],
                       check=True, stdout=subprocess.DEVNULL)

    def ratio(self, since=None):
        now = self.total()
        raw, disk = now["raw_bytes"], now["log_used_bytes"] + now["index_used_bytes"]
        if since is not None:
            raw, disk = raw - since["raw_bytes"], disk - since["log_used_bytes"] - since["index_used_bytes"]
        return raw / disk


def run(store, first, second):
    figures = {}
    store.prepare()
    store.serve()
    store.import_accounts()
    store.deliver(first, 1)
    figures["as delivered, built-in dictionaries"] = store.ratio()
    store.tambo("dict", "train", stdout=subprocess.DEVNULL)
    before = store.total()
    store.deliver(second, HALF + 1)
    figures["delivered after training, held out"] = store.ratio(before)
    store.tambo("gc", "--all", stdout=subprocess.DEVNULL)
    figures["all of it after gc --all"] = store.ratio()
    background.thin_out(store, range(1, HALF + 1), 1)
    store.wait_until("mail stays in the trash", lambda: store.total()["stored_raw_bytes"] <= store.total()["raw_bytes"])
    store.tambo("gc", "--all", stdout=subprocess.DEVNULL)
    figures["after gc --all, held out"] = store.ratio()
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, default=compare.TOP / "build/release", help="of the programs")
    parser.add_argument("--corpus", default=os.environ.get("CORPUS"), required="CORPUS" not in os.environ)
    parser.add_argument("--port-offset", type=int, default=22200)
    parser.add_argument("--dir", type=pathlib.Path, help="where the store goes (build/)")
    args = parser.parse_args()
    (compare.TOP / "build").mkdir(exist_ok=True)
    work = pathlib.Path(tempfile.mkdtemp(prefix="density.", dir=args.dir or compare.TOP / "build"))
    store = Store(args, work, 0, SETTINGS)
    try:
        for name, ratio in run(store, *halves(args.corpus, work)).items():
            print(f"raw/disk {ratio:.3f}  {name}")
    finally:
        store.stop()
        shutil.rmtree(work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
