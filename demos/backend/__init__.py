"""What the tabs work with: encoders in memory, downloads, turns at the processor, temporary files. Never imports
Gradio.
"""
