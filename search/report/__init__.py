"""How a study is shown: its report, and what optuna-dashboard shows of it besides its trials.

What is told, in the report and in the dashboard:

- `facts.py`: `Report`, all that is told of a study, read from what is stored
- `outcomes.py`: what the race over fresh seeds and the retraining told
- `importance.py`: which hyperparameters set the best trials apart, told from chance
- `effort.py`: what the trials cost, and what stopping early saved
- `hyperparameter_table.py`: hyperparameters as lines to read
- `validation.py`: the best network trained once more, and its answers on validation images

The report:

- `page.py`: one HTML file, by the template `report.html`
- `pictures.py`: which pictures it has, as SVG and as PNG; `figures.py`: what each shows;
  `axes.py`: what they share
- `weights_figures.py`: how retrained networks learnt, what they confuse, where they err;
  `confusions.py`: which classes are taken for which
- `drawing.py`: settings, fonts and texts of all pictures, `palette.py`: their colours;
  `loading.py`: matplotlib imported

The dashboard:

- `dashboard.py`: optuna-dashboard, served; `dashboard_pages.py`: what its pages are told
- `dashboard_sync.py`: keeps current, while a search runs, what follows
- `note.py`, `graphs.py`: a study's note and its graphs
- `artifacts.py`: learning curves and weights of the best trials, in files
- `artifact_files.py`: where these lie, how they are called, what tells of them
"""
