"""What came of an erasure request."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from peft import PeftModel
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from knowundo.certificate.certify import Certificate
from knowundo.erasure.list_check import ListCheck
from knowundo.erasure.loaded import LoadedModel
from knowundo.erasure.request_log import RequestLog
from knowundo.exports.export import Exported
from knowundo.modeling.loading import load_base
from knowundo.modeling.notes import Notes
from knowundo.results import Results
from knowundo.runs.base import model_options
from knowundo.runs.run import Run


@dataclass(frozen=True)
class Erased:
    """What came of a request.

    Attributes:
        run: the run that did it.
        results: its results.
        check: what the list held, and what the model knew of it before.
        exported: the exported model. `None` if the list is still known, or the model collapsed.
        log: all requests that the exported model has been through.
        relapsed: numbers of earlier requests that are known again.
        verdict: whether the list is gone, in one line; says why if no model is exported.
        certificate: the evidence on the unlearned model, in `out/certificate/erased`.
        loaded: the model that was handed in. If `None`, it was named.
    """

    run: Run
    results: Results
    check: ListCheck
    exported: Exported | None
    log: RequestLog
    relapsed: list[int]
    verdict: str
    certificate: Certificate
    loaded: LoadedModel | None = None

    @property
    def erased(self) -> bool:
        """True if the list is gone and the model was exported."""
        return self.exported is not None

    @property
    def report(self) -> Path:
        """The report, an HTML file."""
        return self.run.out / "report.html"

    @cached_property
    def model(self) -> PreTrainedModel | PeftModel | None:
        """The unlearned model in evaluation mode, loaded when it is first asked for.

        A `PeftModel` if a LoRA was trained and not merged: beside the base as it was handed in, or
        else as it is loaded by its name. It is on the run's device. `None` if nothing was exported.
        """
        if self.exported is None:
            return None
        if self.exported.form == "adapter" and self.loaded is not None:
            return self.loaded.with_adapter(self.exported.folder)
        section, merged = self.run.recipe.model, self.exported.form == "merged"
        options = replace(model_options(self.run.recipe)["options"], gradient_checkpointing=False)
        if merged:
            options, base = replace(options, quantization=None), str(self.exported.folder)
        else:
            base = section.base
        net = load_base(base, options, Notes(), trained=False).net
        return (net if merged else PeftModel.from_pretrained(net, self.exported.folder)).eval()

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The tokenizer of the unlearned model. `None` if nothing was exported."""
        if self.exported is None:
            return None
        if self.loaded is not None:
            return self.loaded.tokenizer
        code = self.run.recipe.model.trust_remote_code
        return AutoTokenizer.from_pretrained(self.exported.folder, trust_remote_code=code)
