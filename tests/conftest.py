import torch

torch.set_num_threads(1)
torch.set_flush_denormal(True)


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "row(n, ...): rows of the checklist of what the two essays name, that a test checks"
    )
    config.addinivalue_line("markers", "slow: for `make test-all`")


def pytest_addoption(parser):
    parser.addoption("--rows", action="store_true", help="print checklist row -> tests, and run none")


def pytest_collection_modifyitems(config, items):
    items.sort(key=lambda item: item.path.stem != "test_chapters")  # the longest first, or one core waits for it
    if not config.getoption("--rows"):
        return
    found: dict[int, list[str]] = {}
    for item in items:
        for marker in item.iter_markers("row"):
            for row in marker.args:
                found.setdefault(row, []).append(item.nodeid)
    for row in sorted(found):
        print(f"{row:3d}  {found[row][0]}", *(f"     {name}" for name in found[row][1:]), sep="\n")
    config.hook.pytest_deselected(items=items)
    items[:] = []
