import torch

torch.set_num_threads(1)  # many small tensors: more threads only get in each other's way
torch.set_flush_denormal(True)
