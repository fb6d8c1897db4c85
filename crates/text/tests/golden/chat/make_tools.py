"""Conversations with tools, calls, results and reasoning, token for token: python make_tools.py (beside this file).

Two templates of our own, in the style of published ones (Hermes 3 and Qwen 3): other words, the same constructs. Rows are as
data sets have them. The tokenizer is trained here, on the texts themselves. Masks are transformers' own, of the same template
with `{% generation %}` around what the assistant says.
"""
import json, pathlib
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

HERMES = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- 'You may call functions. Their signatures:\\n<tools>' }}
    {%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}
    {{- '\\n</tools><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' or message.role == 'system' and not loop.first or message.role == 'developer' %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' }}
        OPEN
        {%- if message.content %}{{- message.content }}{%- endif %}
        {%- for call in message.tool_calls or [] %}
            {%- if call.function is defined %}{%- set call = call.function %}{%- endif %}
            {%- if message.content or not loop.first %}{{- '\\n' }}{%- endif %}
            {{- '<tool_call>\\n{"name": ' + (call.name | tojson) + ', "arguments": ' + (call.arguments | tojson) + '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>' }}
        CLOSE
        {{- '\\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.index0 == 0 or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>tool' }}{%- endif %}
        {{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
QWEN = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- '# Tools\\n<tools>' }}
    {%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{%- endfor %}
    {{- '\\n</tools><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(searching=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == 'user' and message.content is string %}
        {%- set ns.searching = false %}{%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == 'user' or message.role == 'system' and not loop.first %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {%- set reasoning = message.reasoning_content if message.reasoning_content is string else '' %}
        {{- '<|im_start|>assistant\\n' }}
        OPEN
        {%- if loop.index0 > ns.last and (loop.last or reasoning) %}
            {{- '<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for call in message.tool_calls %}
                {%- if (loop.first and content) or not loop.first %}{{- '\\n' }}{%- endif %}
                {%- if call.function %}{%- set call = call.function %}{%- endif %}
                {{- '<tool_call>\\n{"name": "' + call.name + '", "arguments": ' }}
                {%- if call.arguments is string %}{{- call.arguments }}{%- else %}{{- call.arguments | tojson }}{%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>' }}
        CLOSE
        {{- '\\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' + content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}
"""
plain = lambda t: t.replace("        OPEN\n", "").replace("        CLOSE\n", "")
marked = lambda t: t.replace("        OPEN\n", "        {%- generation %}\n").replace("        CLOSE\n", "        {%- endgeneration %}\n")
TEMPLATES = {"hermes": HERMES, "qwen": QWEN}

TOOLS = [
    {"type": "function", "function": {"name": "look_up", "description": "Finds a \"passage\", für <b>.", "parameters": {"type": "object", "properties": {"query": {"type": "string"}, "k": {"type": "integer", "default": 3}}, "required": ["query"]}}},
    {"type": "function", "function": {"name": "now", "description": "", "parameters": {"type": "object", "properties": {}}}},
]
call = lambda name, **arguments: {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}
ROWS = {
    "call": {"tools": TOOLS, "messages": [
        {"role": "user", "content": "What colour is basalt?"},
        {"role": "assistant", "content": "I look it up.", "tool_calls": [call("look_up", query="basalt é", k=2)]}]},
    "null_content": {"tools": TOOLS, "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What colour is basalt?"},
        {"role": "assistant", "content": None, "tool_calls": [call("look_up", query="basalt", k=1)]},
        {"role": "tool", "tool_call_id": "c1", "content": "Basalt is dark grey."},
        {"role": "assistant", "content": "dark grey"}]},
    "two_calls": {"tools": TOOLS, "messages": [
        {"role": "user", "content": "Basalt, and the time?"},
        {"role": "assistant", "tool_calls": [call("look_up", query="basalt"), call("now")]},
        {"role": "tool", "tool_call_id": "c1", "content": "Basalt is dark grey."},
        {"role": "tool", "tool_call_id": "c2", "name": "now", "content": "{\"hour\": 9}"},
        {"role": "assistant", "content": "Dark grey; nine."},
        {"role": "user", "content": "Thanks."},
        {"role": "assistant", "content": "Welcome."}]},
    "reasoning": {"messages": [
        {"role": "user", "content": "Two and two?"},
        {"role": "assistant", "reasoning_content": "Add them.", "content": "Four."},
        {"role": "user", "content": "And two?"},
        {"role": "assistant", "reasoning_content": "Four and two.\n", "content": "Six."}]},
    "reasoning_and_call": {"tools": TOOLS, "messages": [
        {"role": "user", "content": "Which rock floats?"},
        {"role": "assistant", "reasoning_content": "I do not know it.", "content": "", "tool_calls": [call("look_up", query="floats")]},
        {"role": "tool", "tool_call_id": "c1", "content": "pumice"},
        {"role": "assistant", "reasoning_content": "Found.", "content": "Pumice."}]},
    "open": {"tools": TOOLS, "messages": [
        {"role": "user", "content": "Which rock floats?"},
        {"role": "assistant", "content": "", "tool_calls": [call("look_up", query="floats")]},
        {"role": "tool", "tool_call_id": "c1", "content": "pumice"}]},
}
SPECIAL = ["<|im_start|>", "<|im_end|>", "<pad>"]
here = pathlib.Path(__file__).parent / "tools"

inner = Tokenizer(models.BPE())
inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
inner.decoder = decoders.ByteLevel()
texts = [json.dumps(row, ensure_ascii=False) for row in ROWS.values()]
trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
inner.train_from_iterator(texts, trainer)
tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<pad>")
tokenizer.add_tokens(["<tool_call>", "</tool_call>", "<think>", "</think>"])
tokenizer.save_pretrained(here)

cases = []
for name, source in TEMPLATES.items():
    for row_name, row in ROWS.items():
        messages, tools = row["messages"], row.get("tools")
        ids = lambda template, **k: tokenizer.apply_chat_template(messages, tools=tools, chat_template=template, tokenize=True, return_dict=True, **k)
        whole = ids(marked(source), return_assistant_tokens_mask=True)
        assert whole["input_ids"] == ids(plain(source))["input_ids"]
        cases.append(dict(
            template=name, row=row_name, ids=whole["input_ids"], mask=whole["assistant_masks"],
            prompt=ids(plain(source), add_generation_prompt=True)["input_ids"],
            text=tokenizer.apply_chat_template(messages, tools=tools, chat_template=plain(source), tokenize=False)))
golden = dict(templates={k: plain(v) for k, v in TEMPLATES.items()}, marked={k: marked(v) for k, v in TEMPLATES.items()}, rows=ROWS, cases=cases)
json.dump(golden, open(here / "tools.golden.json", "w"), indent=1, ensure_ascii=False)
print(len(cases)); print(cases[2]["text"]); print(cases[-2]["text"])
