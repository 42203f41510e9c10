"""Training jobs, and the pools of workers that do them, wherever they run.

- `setup`: which workers train, and a pool of them once their data are there
- `jobs`: what is to be trained, what comes back, and what a `WorkerPool` is
- `repeats`: recipes trained over several seeds
- `worker_loop`: what a worker does, and the messages between it and its pool
- `base_pool`: the rules of all pools: who gets which job, and what follows when a worker dies
- `local_pool`: training processes on this machine
- `ray_pool`: actors on a Ray cluster
- `fork_server`: how the processes come into being
- `resources`: a device dealt to each worker, or a part of a cluster
- `awake_clock`: time as a process lives it, sleep left out
"""
