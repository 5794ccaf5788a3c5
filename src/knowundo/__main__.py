"""`python -m knowundo`, which launchers such as torchrun start."""

from knowundo.cli import main

if __name__ == "__main__":
    main()
