"""Writes `towers/*`: tiny random models of `transformers` as folders, with what they make of pictures and texts.

Run by hand, with torch, transformers and sentencepiece installed:
`PYTHONPATH=tests:. python tests/golden/make_towers.py`.
"""

import contextlib
import io
import json
import pathlib
import shutil

import numpy as np
import sentencepiece
import tokenizers
import torch
import transformers
from small_pictures import random_picture
from tokenizers import models, normalizers, pre_tokenizers, trainers

FOLDER = pathlib.Path(__file__).parent / 'towers'
SIZES = [(48, 36), (31, 53), (13, 17)]  # of the pictures: wide, high, smaller than what the models look at
TEXTS = ['A dog  runs.', "The man's RED dog, and a cat!", 'dogs']
CORPUS = ['a dog runs on grass', 'the man and a red dog', 'two cats sit', 'a red cat and the dogs', 'man runs'] * 9
LAYERS = {'num_hidden_layers': 3, 'num_attention_heads': 2}
PART = LAYERS | {'hidden_size': 14, 'intermediate_size': 19}
VISION = PART | {'image_size': 23, 'patch_size': 5}
DINO = LAYERS | {'hidden_size': 14, 'mlp_ratio': 3, 'image_size': 37, 'patch_size': 5}
WIDTH = 11  # of texts


def main() -> None:
  shutil.rmtree(FOLDER, ignore_errors=True)
  torch.manual_seed(0)
  t = transformers
  square = {'size': {'height': 23, 'width': 23}}
  crop = {'size': {'shortest_edge': 26}, 'crop_size': {'height': 23, 'width': 23}}
  same = {'size': {'shortest_edge': 23}, 'crop_size': {'height': 23, 'width': 23}}
  processor = {'clip': t.CLIPImageProcessorPil(**same), 'siglip': t.SiglipImageProcessorPil(**square, resample=2)}
  imagenet = {'image_mean': [0.485, 0.456, 0.406], 'image_std': [0.229, 0.224, 0.225]}
  bit = t.BitImageProcessorPil(**crop, **imagenet)

  save('vit', t.ViTModel(t.ViTConfig(**VISION)), t.ViTImageProcessorPil(**square))
  save('dinov2', t.Dinov2Model(t.Dinov2Config(**DINO)), bit)
  save('dinov2_gated', t.Dinov2Model(t.Dinov2Config(**DINO, use_swiglu_ffn=True)), bit)
  registers = t.Dinov2WithRegistersConfig(**DINO, num_register_tokens=3)
  save('dinov2_with_registers', t.Dinov2WithRegistersModel(registers), bit)

  tokenizer = clip_tokenizer()
  text = PART | {'vocab_size': len(tokenizer) + 2, 'max_position_embeddings': WIDTH}
  start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
  for name, act, end_in_config in (('clip_first_files', 'quick_gelu', 2), ('clip', 'gelu', end)):
    tokens = {'bos_token_id': start, 'eos_token_id': end_in_config, 'pad_token_id': end}
    config = t.CLIPConfig(
      text_config=text | tokens | {'hidden_act': act}, vision_config=VISION | {'hidden_act': act}, projection_dim=7
    )
    save(name, t.CLIPModel(config), processor['clip'], tokenizer, shards=name == 'clip_first_files')

  tokenizer = siglip_tokenizer(FOLDER / 'siglip')
  tokens = {'bos_token_id': None, 'eos_token_id': 1, 'pad_token_id': 1, 'projection_size': 14}
  text |= tokens | {'vocab_size': tokenizer.vocab_size}
  config = t.SiglipConfig(text_config=text, vision_config=VISION)
  save('siglip', t.SiglipModel(config), processor['siglip'], tokenizer)


def save(name: str, model, processor, tokenizer=None, *, shards: bool = False) -> None:
  """The folder, and `golden.npz` with inputs and outputs."""
  folder = FOLDER / name
  with torch.no_grad():
    for parameter in model.parameters():  # the usual start is so small that attention is uniform
      parameter.copy_(torch.randn_like(parameter) * 0.4 + (parameter == 1))
  model = model.eval()
  with contextlib.redirect_stderr(io.StringIO()):
    model.save_pretrained(folder, max_shard_size='20KB' if shards else '1GB')
  (folder / 'preprocessor_config.json').write_text(processor.to_json_string())
  pictures = [random_picture(seed, size) for seed, size in enumerate(SIZES)]
  pixels = processor(pictures, return_tensors='pt')['pixel_values']
  golden = {'pixels': pixels.permute(0, 2, 3, 1)}
  with torch.no_grad():
    if tokenizer is None:
      golden['states'] = model(pixel_values=pixels).last_hidden_state
    else:
      fixed = {'padding': 'max_length', 'truncation': True, 'max_length': WIDTH}
      tokens = tokenizer(TEXTS, **fixed, return_tensors='pt')['input_ids']
      output = model(input_ids=tokens, pixel_values=pixels)
      golden |= {
        'states': output.vision_model_output.last_hidden_state,
        'embedding': output.image_embeds,
        'tokens': tokens.int(),
        'words': output.text_model_output.last_hidden_state,
        'text_embedding': output.text_embeds,
        'logits': output.logits_per_image,
      }
  np.savez_compressed(folder / 'golden.npz', **{key: np.ascontiguousarray(value) for key, value in golden.items()})
  print(name, {key: tuple(value.shape) for key, value in golden.items()})


def clip_tokenizer():
  """A CLIP tokenizer with few pieces; its folders get `tokenizer.json`."""
  learner = tokenizers.Tokenizer(models.BPE(end_of_word_suffix='</w>'))
  learner.normalizer = normalizers.Lowercase()
  learner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
  trainer = trainers.BpeTrainer(vocab_size=64, end_of_word_suffix='</w>', show_progress=False)
  learner.train_from_iterator([*CORPUS, *TEXTS], trainer)
  learnt = json.loads(learner.to_str())['model']
  vocabulary = learnt['vocab']
  for special in ('<|startoftext|>', '<|endoftext|>'):
    vocabulary[special] = len(vocabulary)
  tokenizer = transformers.CLIPTokenizer(vocab=vocabulary, merges=[tuple(pair) for pair in learnt['merges']])
  for name in ('clip', 'clip_first_files'):
    tokenizer.save_pretrained(FOLDER / name)
  return tokenizer


def siglip_tokenizer(folder: pathlib.Path):
  """A SigLIP tokenizer by sentencepiece; its folder gets the same pieces as `tokenizer.json`, without the cleaning."""
  folder.mkdir(parents=True)
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(CORPUS),
    model_writer=model,
    vocab_size=26,  # the most that this much text gives
    pad_id=0,
    bos_id=-1,
    eos_id=1,
    unk_id=2,
    minloglevel=2,
  )
  path = folder / 'spiece.model'
  path.write_bytes(model.getvalue())
  tokenizer = transformers.SiglipTokenizer(str(path))
  pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
  scores = [(pieces.id_to_piece(number), pieces.get_score(number)) for number in range(pieces.get_piece_size())]
  fast = tokenizers.Tokenizer(models.Unigram(scores, unk_id=pieces.unk_id()))
  fast.pre_tokenizer = pre_tokenizers.Metaspace()
  fast.save(str(folder / 'tokenizer.json'))
  settings = {'tokenizer_class': 'SiglipTokenizer', 'eos_token': '</s>', 'pad_token': {'content': '</s>'}}
  (folder / 'tokenizer_config.json').write_text(json.dumps(settings | {'do_lower_case': True}, indent=2) + '\n')
  path.unlink()
  return tokenizer


if __name__ == '__main__':
  main()
