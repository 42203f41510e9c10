"""Images: data sets as tensors, built in or one's own, split into training, validation and test.

- `load.py`: `load_dataset`, a data set by its name; `at_hand.py`: whether it can be had
- `names.py`: what can be a name, and how many images of each built-in set train, validate, test
- `dataset.py`: `Dataset`, and how it is split and fingerprinted; `parts.py`: the parts of it that
  validate in turn; `normalization.py`: how its pixels are scaled
- `built_in.py`: MNIST and its kin, found or downloaded, and the digits of scikit-learn;
  `idx_files.py`: where MNIST's files lie, and whether they can be had
- `own.py`: data sets of tensors and of folders; `image_folders.py`: which files of a folder differ,
  and their pixels; `folder_layout.py`: where they lie; `split_names.py`: which folders' names tell
  of a split; `image_sizes.py`: the size that they are scaled to; `pictures.py`: one picture file
- `digit_photos.py`: photographs of digits made like MNIST's images
- `mapped.py`: the files that workers map, the test set among them only where it is asked for
- `cache.py`: the user's cache of images; `tensors.py`: tensors written to files
"""
