"""The benchmarks of the Qwen-VL model card, one module each; the registry gathers their TASKS."""
