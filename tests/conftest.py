def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=3, help="how many runs to kill at a random moment (default: 3)")
    parser.addoption("--kill-demo", action="store_true", help="kill the demo's runs instead of a small grid's")
