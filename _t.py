from tests.tiny import *
t=tiny_tokenizer()
print(N_VOCAB, len(t), t("The capital of France is Paris, Köln", add_special_tokens=False)["input_ids"], t.tokenize("The capital of France is Paris Köln"))
assert t.decode(t("The capital of France is Paris,  Köln\n x")["input_ids"])=="The capital of France is Paris,  Köln\n x"
print(t.apply_chat_template([{"role":"user","content":"What is"}],tokenize=False,add_generation_prompt=True))
print(t(t.apply_chat_template([{"role":"user","content":"What is"}],tokenize=False,add_generation_prompt=True)))
for w in WORDS:
    assert len(t(w)["input_ids"])==1 and len(t(" "+w)["input_ids"])==1, w
import time
for f in (tiny_llama, tiny_gpt2, tiny_phi3, lambda: tiny_llama(bias=True,tied=False)):
    b=time.time(); m=loaded(f()); print(m, m.fingerprint[:8], time.time()-b)
    lo=m.hf(torch.tensor([t("The capital of France is")["input_ids"]])).logits
    print(lo.std(), lo[0,-1].softmax(-1).max(), sum(p.numel() for p in m.hf.parameters()))
