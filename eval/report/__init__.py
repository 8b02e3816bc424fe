"""The model card's tables with the scores of finished runs. Never imports torch.

run folders -> scores.load_run -> tables.build_tables, with card.load_card -> the modules of forms
two of them -> gate.compare_runs -> forms.verdict
"""
