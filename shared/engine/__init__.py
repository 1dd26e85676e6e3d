"""The engine: the only folder that imports torch, diffusers and transformers.

loading       a checkpoint and the acceleration settings become a `Model`
acceleration  device, number format, quantisation, kernels, and what a machine cannot do
text          prompts become keys and values for the transformer's cross-attention
denoising     one transformer forward over a batch of images, each at its own timestep
samplers      one step of one image along its own noise schedule
frames        latents become pictures: the one-frame VAE, and the linear preview
core          the batch of active images and its `step()`; knows no threads
thread        a thin thread around the core that takes requests and hands out events
"""

import logging

# Where torchao is installed, importing diffusers imports it, and it reports each of its kernels
# that this machine has no use for.
logging.getLogger("torchao").setLevel(logging.ERROR)
