"""Monitoring: are the days that come in still like those the model learnt from, and its scores still true?"""
