"""FRAUD-1: one small job that this project and others do on the same topic, each checked against pandas.

JSON transactions of 5,000 customers over 60 days; nine features of the transaction and of its customer's last 1, 7 and
30 days; a logistic regression; a JSON decision for each in another topic.
"""
