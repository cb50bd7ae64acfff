"""Fast kernels for what ConvMixer is made of, each with its plain PyTorch reference."""
