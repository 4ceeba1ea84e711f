"""One spelling for each operation: how a graph as torch.fx traces it becomes a canonical one."""
