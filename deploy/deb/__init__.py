"""Debian packages of the agent and of the server, one for each Python and processor that a device may have.

    locks/NAME-pyX.Y-ARCH.txt --wheels--> site-packages --staging--> a tree of files --archive--> NAME_VERSION_ARCH.deb
    pyproject.toml --lock (uv)--^

Nothing is compiled and nothing of the target is run, so one machine makes all of them. The same commit makes the same
bytes wherever dpkg, zstd and pip are the same: wheels are taken by digest, times come from the commit, modes from here.

What is deliberately absent: a source package, debhelper (it would want to compile), a repository of packages, a
byte-compiled file (the device makes those of its own Python, as Debian's other packages do), pip on the device.
"""
