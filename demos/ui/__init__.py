"""The page around the tabs and what all of them show: controls, errors, examples, theme, and in web/ their scripts and
styles.
"""
