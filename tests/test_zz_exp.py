import json, time, pytest, sys
sys.path.insert(0,"/work/main/tests")
from training.test_loop import SHAPES, SMALL
from rejoinder.config import TrainConfig
from rejoinder.training.loop import train
from rejoinder.evaluation import redraw
def test_x(make, lessons, tmp_path):
    rows=[]
    for shape in SHAPES:
        for lr in (3e-3,1e-2,3e-2):
          for drop in (0.0,):
            t=time.time(); out=tmp_path/f"{shape}{lr}{drop}"
            cfg=TrainConfig(**{**SMALL,"max_steps":100,"lr":lr,"batch_size":8,"negatives":4,"eval_every":50,"drop_persona":drop,"schedule":"constant"})
            rep=train(make(**SHAPES[shape]), lessons, redraw(lessons,8), cfg, out)
            L=[round(json.loads(l)["loss"],2) for l in (out/"log.jsonl").read_text().splitlines() if "loss" in l]
            rows.append((shape,lr,drop,L,round(time.time()-t,1),rep and rep.hits_at_1))
    sys.__stdout__.write("\n".join(map(str,rows)))
