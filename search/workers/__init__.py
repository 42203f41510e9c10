"""Training jobs, and the pools of workers that do them, wherever they run.

- `setup.py`: which workers train, and a pool of them once their data are there, with the test set
  or without
- `jobs.py`: what is to be trained, what comes back, and what a `WorkerPool` is
- `repeats.py`: recipes trained over several seeds
- `worker_loop.py`: what a worker does, and the messages between it and its pool
- `base_pool.py`: the rules of all pools: who gets which job, and what follows when a worker dies
- `local_pool.py`: training processes on this machine
- `ray_pool.py`: actors on a Ray cluster; `ray_connection.py`: the connection to it;
  `ray_cluster.py`: that a search asks for one
- `ray_head.py`: whether the head of the cluster answers
- `fork_server.py`: how the processes come into being
- `resources.py`: a device dealt to each worker, or a part of a cluster
- `awake_clock.py`: time as a process lives it, sleep left out
"""
