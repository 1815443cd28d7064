"""Which weights are there?"""
