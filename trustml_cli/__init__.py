"""Trustworthy machine learning from one command line: `trustml task=fgsm model=cifar_cnn`."""
