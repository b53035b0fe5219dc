"""The tabs of the explorer, one file each; every tab also runs alone: python -m demos.ask"""
