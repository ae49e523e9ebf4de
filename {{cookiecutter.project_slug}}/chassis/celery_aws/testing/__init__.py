"""For the tests of a service: it runs on the emulator, with real workers."""
