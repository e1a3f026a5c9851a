"""What a trained classifier is worth: test metrics, figures, and one report page with all of them."""

from minicnn.evaluation.figures import plot_confusion_matrix, plot_filters, plot_history, plot_mistakes, plot_roc
from minicnn.evaluation.metrics import RocCurve, class_metrics, confusion_matrix, display_name, roc_curves, test_metrics
from minicnn.evaluation.report import write_report

__all__ = [
    "RocCurve",
    "class_metrics",
    "confusion_matrix",
    "display_name",
    "plot_confusion_matrix",
    "plot_filters",
    "plot_history",
    "plot_mistakes",
    "plot_roc",
    "roc_curves",
    "test_metrics",
    "write_report",
]
