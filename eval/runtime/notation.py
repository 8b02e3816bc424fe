"""Qwen-VL's notation: `<img>path</img>`, `<ref>phrase</ref>`, `<box>(x1,y1),(x2,y2)</box>`.

It is text, and needs no torch.
"""

import re

IMAGE = re.compile(r"<img>(.*?)</img>", re.DOTALL)
SYSTEM = "You are a helpful assistant."  # of every dialogue, as Qwen-VL-Chat was taught
