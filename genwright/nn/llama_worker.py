"""The process in which llama.cpp runs: reads its options from stdin, serves on a private socket until stdin closes.

In a process of its own a broken file cannot take the house down with it, llama.cpp's chatter stays in a file, and all
memory comes back when it ends. It imports nothing of Genwright, so it starts in a tenth of a second.
"""

import json
import os
import sys


def main() -> None:
    """Serve until our parent lets go of us."""
    options = json.loads(sys.stdin.readline())
    import xllamacpp as llama

    params = llama.CommonParams()
    params.model.path = options["path"]
    params.hostnames = [options["socket"]]  # a path that ends in .sock is a Unix socket: no port is opened
    params.api_keys = [options["key"]]
    params.verbosity = 1  # errors only
    params.n_ctx = options["context"] * options["parallel"]
    params.n_parallel = options["parallel"]
    params.n_batch = params.n_ubatch = 512
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options["threads"]
    params.n_threads_http = options["parallel"] + 2
    params.swa_full = True  # else models with sliding windows lose their prefix cache
    params.cache_ram_mib = 0  # that cache does not know which adapter filled it
    params.ctx_shift = False
    params.fit_params = False
    params.ui = False
    params.offline = True
    params.warmup = False
    params.lora_adapters = [llama.CommonAdapterLoraInfo(a["path"], a["scale"]) for a in options["adapters"]]
    try:
        server = llama.Server(params)
    except (RuntimeError, ValueError) as error:
        print(json.dumps({"error": str(error)}), flush=True)
        os._exit(1)
    print(json.dumps({"address": server.listening_address}), flush=True)
    sys.stdin.read()  # until our parent closes it, or dies
    os._exit(0)


if __name__ == "__main__":
    main()
