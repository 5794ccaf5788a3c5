"""LUME's scores (Ramakrishna et al. 2025, arXiv:2502.15097), as SemEval-2025 task 4 ranks by them.

The shared task's final score is the mean of three: `lume_task_aggregate`, 1 − 2·|AUC − 1/2| of a
loss-based membership attack, and the accuracy on MMLU. `final_score` puts them together.
"""

from __future__ import annotations

from knowundo.evaluation.groups import Scores
from knowundo.registry import metric, scorer
from knowundo.scoring.seen import Generated

# A literal, because `knowundo list` reads it without importing the file.
GROUPS = (
    "unlearn/train/creative sc",
    "unlearn/train/creative qa",
    "unlearn/train/pii sc",
    "unlearn/train/pii qa",
    "unlearn/train/real sc",
    "unlearn/train/real qa",
    "retention/train/creative sc",
    "retention/train/creative qa",
    "retention/train/pii sc",
    "retention/train/pii qa",
    "retention/train/real sc",
    "retention/train/real qa",
)


@scorer(needs="answer", asked=True)
def lume_exact(answer: Generated) -> float:
    """Whether the answer is the true one but for case and white space around it."""
    return float(answer.said.strip().lower() == answer.record.answer.strip().lower())


@metric(higher_is="forgotten", unit="ratio", groups=GROUPS, asks=("lume_exact",))
def lume_task_aggregate(*groups: Scores) -> float:
    """Harmonic mean of twelve: ROUGE-L of texts and exact matches of answers, 1 − v of unlearn.

    Two scopes, three tasks, two kinds. ROUGE-L is the recall with stemming. With one of the twelve
    at 0, it is 0.
    """
    values = []
    for name, scores in zip(GROUPS, groups, strict=True):
        value = float(scores["rouge_l" if name.endswith("sc") else "lume_exact"].mean())
        values.append(1 - value if name.startswith("unlearn") else value)
    return len(values) / sum(1 / value for value in values) if all(values) else 0.0


def final_score(task_aggregate: float, membership_auc: float, mmlu: float) -> float:
    """The final score of SemEval-2025 task 4, which only ranks models with an MMLU above 0.371.

    Args:
        task_aggregate: `lume_task_aggregate`, in [0, 1].
        membership_auc: Area under the ROC curve of the loss of LUME's member and nonmember texts,
            in [0, 1].
        mmlu: Accuracy on MMLU, in [0, 1].
    """
    return (task_aggregate + 1 - 2 * abs(membership_auc - 0.5) + mmlu) / 3
