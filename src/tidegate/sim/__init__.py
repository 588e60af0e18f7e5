"""The simulator: the real agent on simulated disks, boards, links and clocks; shipped, so that tests, demo and users run the same one."""
