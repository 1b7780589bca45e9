"""`edge-agent flash`: from a stock image to a card that a device boots from, enrols with and works.

    stock image --partitions--> FAT, root --looking--> Facts --boards--> Board: which system, by which mechanism
    options, kit, CSV --orders--> Seed: who the device is, its settings, its package, its network
    Seed --payload, mechanisms--> {file: bytes} of the boot partition --fat--> a copy of that partition
    image with that partition in the place of its own --writing--> file or card, read again, every byte
    card's mounted boot partition <--mounted-- the same files

On the device: cloud-init, firstrun.sh or rpi-preseed, whichever the image has, runs `first_boot/first-boot.sh arrange`;
the service that this makes places settings, then installs the package, at each boot until that is done.

A workstation's tool: nothing else of `edge_agent` imports it, and the Debian package is made without it.

What is deliberately absent: mounting, root, loop devices (mtools and debugfs read and write files in a partition that
is not mounted); downloads of images; private keys of devices, unless they were made beforehand elsewhere; passwords of
people (a key opens the door, or nothing does).
"""
