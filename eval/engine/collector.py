"""The collector: files what the runner computed. It knows no tensor and chooses no sequence."""

from collections.abc import Iterator, Mapping

from eval.api import Nucleus, Prediction, Rank
from eval.engine.plain import ranked_prediction
from eval.engine.runner import Outcome
from eval.engine.scheduler import Scheduler
from eval.engine.sequence import Sequence
from eval.errors import PredictionError
from eval.runtime import QwenVL
from eval.runtime.generation import Losses


class Collector:
    """Appends tokens to their sequences; a sequence that is finished becomes a prediction."""

    def __init__(self, model: QwenVL, scheduler: Scheduler) -> None:
        self.tokenizer = model.tokenizer
        self.stops = (self.tokenizer.im_end_id, self.tokenizer.im_start_id)  # of a dialogue
        self.scheduler = scheduler

    def collect(self, outcomes: Mapping[Sequence, Outcome]) -> Iterator[Prediction]:
        """Predictions of the sequences that these outcomes finish.

        A sequence whose scores were not finite, with None, stays as it is.
        """
        for sequence, outcome in outcomes.items():
            if isinstance(outcome, Losses):
                prediction = _ranked(sequence, outcome)
            elif outcome is not None and self._append(sequence, outcome):
                prediction = self._generated(sequence)
            else:
                continue
            self.scheduler.finish(sequence)
            yield prediction

    def _append(self, sequence: Sequence, token: int) -> bool:
        """Add a token; whether it was the last."""
        end, new = self.tokenizer.eod_id, sequence.new
        new.append(token)
        if sequence.question.request.chat and token in self.stops and len(new) < sequence.max_new:
            new.append(end)  # nothing else can follow
        return new[-1] == end or len(new) == sequence.max_new

    def _generated(self, sequence: Sequence) -> Prediction:
        request = sequence.question.request
        text = self.tokenizer.decode_answer(sequence.new)
        seed = request.decode.seed if isinstance(request.decode, Nucleus) else None
        return Prediction(request.id, text, tuple(sequence.new), seed=seed)


def _ranked(sequence: Sequence, losses: Losses) -> Prediction:
    request = sequence.question.request
    assert isinstance(request.decode, Rank)
    try:
        return ranked_prediction(request.id, request.decode, losses)
    except PredictionError as error:
        return failed_prediction(sequence, str(error))


def failed_prediction(sequence: Sequence, reason: str) -> Prediction:
    """The prediction of a sequence that has no answer."""
    return Prediction(sequence.question.request.id, "", error=reason)
