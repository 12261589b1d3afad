"""A tokenizer and a data set of Hugging Face, for training and for generation.

Both are objects in memory here: a `tokenizers` BPE wrapped by `transformers`, and a `datasets.Dataset`. From files, the
command line does the same: `looped train language-looped --task.tokenizer FOLDER --task.dataset FOLDER`, with folders
that `save_pretrained` and `save_to_disk` wrote.

    python examples/hugging_face.py
"""

import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from looped import LoopedTransformer, ModelConfig, Sampling, generate

SENTENCES = ["the cat sat on the mat", "the dog sat on the log", "a cat and a dog ran to the mat"]


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE of 300 tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=300, special_tokens=["<pad>", "<end>"], initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")


def main(steps: int = 60) -> str:
    """Learn three sentences by heart; returns the greedy continuation of "the dog"."""
    dataset = Dataset.from_dict({"text": SENTENCES})
    tokenizer = make_tokenizer(list(dataset["text"]))
    encoded = tokenizer([text + tokenizer.eos_token for text in dataset["text"]], padding=True, return_tensors="pt")
    tokens, attention_mask = encoded["input_ids"], encoded["attention_mask"]  # the mask holds integers
    config = ModelConfig(
        vocab_size=len(tokenizer), output_size=len(tokenizer), max_seq_len=64, causal=True,
        d_model=64, num_heads=4, num_loops=4, positions="rotary", input_injection="add",
    )  # fmt: skip
    model = LoopedTransformer(config, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(1, steps + 1):
        logits = model(tokens[:, :-1], attention_mask=attention_mask[:, :-1]).logits
        targets = tokens[:, 1:].masked_fill(attention_mask[:, 1:] == 0, -100)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 20 == 0:
            print(f"step {step:3}  loss {loss.item():.3f}")
    prompt = torch.tensor(tokenizer("the dog")["input_ids"])
    (new,) = generate(
        model, [prompt], max_new_tokens=20, sampling=Sampling(temperature=0.0), stop=[tokenizer.eos_token_id]
    )
    text = tokenizer.decode([*prompt.tolist(), *new], skip_special_tokens=True)
    print(text)
    return text


if __name__ == "__main__":
    main()
