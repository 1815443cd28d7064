"""What does one take home?"""
