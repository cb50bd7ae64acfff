"""Torture: what mixlab must survive, as numbered cases that anybody can repeat.

python -m torture [CHECK ...] [--sample]     run what is missing, print one number a check
python -m torture --sheet                    write docs/reliability.md from the results
"""
