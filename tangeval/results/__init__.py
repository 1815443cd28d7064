"""What is in a results folder?"""
