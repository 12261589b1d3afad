"""The schemas of what files hold. `looped/run_folder.py` adds the files of a run folder and reads them."""
